"""Serve every room: storage, images, guarded HTTP, the machine, progress."""
