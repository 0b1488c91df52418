"""
An emulator of LlamaCloud's batches and what they stand on: directories, files, configurations, parse and extract jobs.

The official ``llama-cloud`` SDK cannot tell it from the service for the calls it has. What it makes of a file is real,
if modest: see :mod:`overnight.sandbox.llamacloud.parser` and :mod:`overnight.sandbox.llamacloud.extractor`.
"""
