"""Reads facts; judges nothing. Every reading ends in time."""
