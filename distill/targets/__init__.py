"""The teacher's answers to each view: computed online, or once and cached."""
