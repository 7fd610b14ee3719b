"""The teacher's targets for each view: computed online, or computed once and cached."""
