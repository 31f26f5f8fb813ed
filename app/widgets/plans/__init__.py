"""What several pages show of plans: the validated fronts, and what each plan does at its timesteps."""
