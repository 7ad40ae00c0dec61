"""What answering over HTTP costs, against a floor, a peer, and itself at other sizes."""
