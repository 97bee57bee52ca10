"""What every room stands on: storage, images, guarded HTTP, the machine, progress."""
