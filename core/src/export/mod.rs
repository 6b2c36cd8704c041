//! What a search leaves behind: plan, order file and pruned checkpoints.
