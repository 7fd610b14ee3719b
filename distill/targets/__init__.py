"""The teacher's targets for each view: computed online, or once and cached."""
