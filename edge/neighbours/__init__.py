"""What the site's own events say of its items: what goes with what, what is rising, what sells where and when, and why.

All of it is derived from the events by one follower (`following`) and can be made anew from them at any time.
"""
