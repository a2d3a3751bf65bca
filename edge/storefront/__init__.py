"""A page for people to look at what their edge answers. A process of its own: serving never waits for it."""
