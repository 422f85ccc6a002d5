"""Indexes of your own videos: added incrementally, stored in LanceDB, searched exactly at any size."""
