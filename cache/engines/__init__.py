"""What differs between engines: how a prefix is computed without a reply, saved, restored, and reported."""
