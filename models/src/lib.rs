//! What judges: anomaly, diagnosis support, training, evaluation
