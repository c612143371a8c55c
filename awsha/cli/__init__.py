"""The commands people type: read, ask a room below, render."""
