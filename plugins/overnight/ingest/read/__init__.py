"""From a URI to lines: listing, opening, decompression, byte ranges, shards."""
