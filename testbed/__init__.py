"""Through which NATs do two peers connect, how often, how fast, and why not?"""

__version__ = "0.1.0"
