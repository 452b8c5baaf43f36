"""The command line: its frame, the verbs that run and describe an artifact, folders of pictures and resumable runs.

Verbs are contributed through the entry points of group `lidcam.verbs`.
"""
