"""What both stages look things up in: names, artifacts, images, teachers, vectors, shards.

No policy, no loss, no loop; importing it costs no more than numpy.
"""
