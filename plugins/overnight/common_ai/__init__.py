"""
Batch adapters for the common-ai provider: its operators, on servers and endpoints that it has no adapter for.

The provider finds them by the entry points of this package; nothing else of Overnight imports them. docs/common-ai.md.
"""
