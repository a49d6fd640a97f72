"""The only folder that knows Ray and Optuna."""
