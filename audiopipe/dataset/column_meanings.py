"""Say what the columns of an output's tables hold, but for those of scorers, which describe their own.

The guide, `audiopipe explain` and the segment table of the quality report show these texts.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["SEGMENT_COLUMNS", "SELECTION_COLUMNS", "VIDEO_COLUMNS"]

SOURCE_COLUMNS = {
    "source_etag": "ETag of the source's object, else its sha256; with that of the files next to bare audio",
    "container": "container of the source by FFmpeg's name: matroska (also of webm), mov (also of mp4 and m4a), ogg",
    "codec": "codec of the source, such as opus",
    "source_rate_hz": "sample rate of the source, in Hz",
    "source_channels": "number of channels of the source",
}

SEGMENT_COLUMNS: Mapping[str, str] = {
    "key": "name of the sample in its tar, without suffix; unique in its language",
    "video_id": "id of the video in the catalog",
    "language": "language of the video",
    "shard": "number of the shard in its language, which the names of tar and tables have",
    "segment": "number of the segment in its video, from 0",
    "start_s": "start in the video's file, in seconds",
    "end_s": "end in the video's file, in seconds",
    "duration_s": "length of the audio, in seconds",
    "text": "text of the segment, without tags and marks; null where the source has none",
    "speaker": "label of the speaker; null where the source has none",
    "sound_event": "whether the text has a mark of music or of another sound",
    "segment_times": "source of the times: catalog, file, json, vtt, srt, json3, srv, ttml, voice or fixed",
    "kept": "whether the tar has the segment",
    "drop_reason": "why it was dropped: a threshold that it broke, a part of keep_if, or what was wrong with its times",
    "tar_offset": "position of the audio in its tar, in bytes; null where it was dropped and not stored",
    "audio_bytes": "size of the encoded audio, in bytes; null where it was dropped and not stored",
    "source_uri": "address of the source, without secrets",
    **SOURCE_COLUMNS,
    "gain_db": "gain that normalization applied, in dB",
    "config_digest": "digest of the parameters that the dataset depends on",
    "version": "version of audiopipe",
}

SELECTION_COLUMNS: Mapping[str, str] = {
    "split": "split of a selection, such as train",
    "parent_shard": "number of the segment's shard in the parent of a selection",
    "parent_tar": "tar of the segment in the parent of a selection",
    "parent_offset": "position of the audio in that tar, in bytes",
}

VIDEO_COLUMNS: Mapping[str, str] = {
    "video_id": "id of the video in the catalog",
    "language": "language of the video",
    "shard": "number of the shard in its language",
    "uri": "address of the source, without secrets",
    "attempts": "how often the plan has the video up to this shard: 1, and 1 more for each retry",
    "status": "done, or failed",
    "error_stage": "stage in which the video failed, such as decode",
    "error_type": "name of the error, for audiopipe explain",
    "error_message": "message of the error, without secrets",
    "retriable": "whether another try may succeed",
    "duration_s": "length of the decoded audio, in seconds",
    "declared_s": "length that the file declares, or the catalog if it was not opened, in seconds",
    "gap_s": "silence that was inserted where the file's times have gaps, in seconds",
    **SOURCE_COLUMNS,
    "audio_track": "the track that was decoded: its position and its language, such as 2 of 3 (eng)",
    "audio_channel": "mean, or the one channel that was used because they cancel in the mean; null with one channel",
    "captions": "name of the file of captions that was used",
    "title": "title, by the metadata of yt-dlp",
    "channel": "channel, by the metadata of yt-dlp",
    "upload_date": "day of the upload, by the metadata of yt-dlp",
    "chapters": "chapters as JSON, by the metadata of yt-dlp",
    "info_language": "language, by the metadata of yt-dlp",
    "notes": "what was ignored in the source, and why",
    "source_bytes": "size of the source, in bytes",
    "segments": "number of segments, kept or dropped",
    "segments_kept": "number of segments in the tar",
    "fingerprint": "acoustic fingerprint, by which duplicates are found",
}
