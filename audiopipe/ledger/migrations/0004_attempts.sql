-- How often a video was tried before it became a dead letter.
ALTER TABLE processing_errors ADD COLUMN attempts INTEGER NOT NULL DEFAULT 1;
