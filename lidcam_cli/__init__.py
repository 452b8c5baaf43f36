"""The command line. Verbs are contributed through the entry points of group `lidcam.verbs`."""
