-- What a server has not been told yet, in order (`supabase.py`). Empty where there is no server.
CREATE TABLE outbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL CHECK (kind IN ('start', 'shard', 'failure', 'worker', 'finish')),
  -- A newer row of the same key takes the place of an older one: of a worker only the last state matters.
  key TEXT UNIQUE,
  body TEXT NOT NULL,
  -- Why the server will not have it; such a row stays for people to look at, and is not sent again.
  refused TEXT
);
