-- The server that knows, or will know from the outbox, all that is in this file. Another one is told from the start.
CREATE TABLE told (
  url TEXT PRIMARY KEY NOT NULL,
  since TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
