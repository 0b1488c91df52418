"""How a call is carried out, blocking or on an event loop: flows, HTTP, AWS, request signing."""
