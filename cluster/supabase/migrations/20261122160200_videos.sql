-- The catalogue. A table `videos` that is there already is left as it is, its policies included; it gets an index.
DO $$
BEGIN
  IF to_regclass('public.videos') IS NULL THEN
    CREATE TABLE public.videos (
      youtube_id TEXT PRIMARY KEY,
      language TEXT NOT NULL,
      status TEXT NOT NULL DEFAULT 'PENDING',
      r2_tar_key TEXT,
      size_bytes BIGINT,
      duration_s FLOAT
    );
    ALTER TABLE public.videos ENABLE ROW LEVEL SECURITY;
    CREATE POLICY "signed-in users read" ON public.videos FOR SELECT TO authenticated USING (true);
    REVOKE ALL ON public.videos FROM PUBLIC, anon, authenticated;
    GRANT SELECT ON public.videos TO authenticated;
    GRANT ALL ON public.videos TO service_role;
  END IF;
  -- Keyset paging in one language, or in all; only where the columns have the plan's names.
  IF (
    SELECT COUNT(*) FROM pg_attribute
    WHERE attrelid = 'public.videos'::regclass AND attname IN ('youtube_id', 'language', 'status') AND NOT attisdropped
  ) = 3 THEN
    CREATE INDEX IF NOT EXISTS videos_completed_by_language ON public.videos (language, youtube_id)
      WHERE status = 'COMPLETED';
    CREATE INDEX IF NOT EXISTS videos_completed ON public.videos (youtube_id) WHERE status = 'COMPLETED';
  END IF;
END $$;

-- The plan's query, paged: the completed videos of one language and partition after an id, in the order of ids.
-- `hashtext` is widened before `abs`, which has no answer for the smallest INT.
CREATE OR REPLACE FUNCTION videos_in_partition(
  language TEXT, partition_count INT, partition_index INT, after_id TEXT DEFAULT '', n INT DEFAULT 1000
) RETURNS TABLE (youtube_id TEXT, r2_tar_key TEXT)
LANGUAGE plpgsql STABLE SET search_path = public AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT youtube_id::TEXT, r2_tar_key::TEXT FROM videos
    WHERE language = videos_in_partition.language
      AND status = 'COMPLETED'
      AND youtube_id > videos_in_partition.after_id
      AND mod(abs(hashtext(youtube_id)::BIGINT), videos_in_partition.partition_count)
        = videos_in_partition.partition_index
    ORDER BY videos.youtube_id
    LIMIT videos_in_partition.n;
END $$;
REVOKE ALL ON FUNCTION videos_in_partition(TEXT, INT, INT, TEXT, INT) FROM PUBLIC, anon;
GRANT EXECUTE ON FUNCTION videos_in_partition(TEXT, INT, INT, TEXT, INT) TO authenticated, service_role;
