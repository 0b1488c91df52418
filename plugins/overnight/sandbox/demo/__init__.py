"""``make demo``: every pipeline once, on this machine, over real text, and proof that it worked."""
