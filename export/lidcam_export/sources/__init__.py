"""What `lidcam export` takes, made into a network whose features, pooling and head are known."""
