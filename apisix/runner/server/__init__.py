"""The running server: sockets, threads, processes, confs, and what happens to a frame."""
