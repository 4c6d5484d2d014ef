"""What runs in the attendee's environment: standard library only, Python 3.8 too."""
