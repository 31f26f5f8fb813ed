"""The plan designer: timesteps, exits and readouts by hand, with images, cost and measurements."""
