"""SCH-GAN as its authors released it, with each fault as a setting."""
