"""Line-by-line transcriptions of the descriptions of the authors' algorithms: slow, plain, and the parity oracle."""
