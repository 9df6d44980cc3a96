"""Files of weights and hyper-parameters, and states, between torch and a conversion."""
