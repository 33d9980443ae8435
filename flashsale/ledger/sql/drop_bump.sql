-- A new epoch: commits of grants that were made under the old one are stale from here on.
UPDATE drops SET epoch = next_epoch(epoch) WHERE id = $1 RETURNING epoch
