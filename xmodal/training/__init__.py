"""Training: from data to an encoder. ``xmodal.train`` is the public function."""
