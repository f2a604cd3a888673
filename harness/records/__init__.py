"""Values that one stage of a run hands to the next, and the errors, identities and progress that all stages share."""
