"""What runs came to, on disk: one writer and one reader for every command."""
