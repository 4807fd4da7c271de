-- Hash of the journal's batch that holds the record at `position`: it fixes the whole history up to there. So a journal that was put
-- back from a copy and has gone on differently since is told from the one that this database followed. NULL: filled before it was kept.
ALTER TABLE journal_position ADD COLUMN hash text COLLATE "C";
