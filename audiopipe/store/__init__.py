"""Read and write objects in a folder or an object store."""
