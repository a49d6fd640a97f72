"""A pose study of two arms and two seeds that trains in a second."""

TINY_POSE_STUDY = {
    "name": "tiny",
    "task": {
        "kind": "pose",
        "loss": "cross_entropy",
        "sigma": 1.0,
        "augmentation": {"scale": 0.0, "rotation": 0.0, "half_body": 0.0},
        "test": {"flip": False},
    },
    "data": {"kind": "synthetic_pose", "num_train": 48, "num_val": 8, "input_size": [32, 32]},
    "space": {
        "base": {
            "width": 4,
            "num_stages": 2,
            "num_modules": 1,
            "num_blocks": 1,
            "stage1_blocks": 1,
            "stage1_width": 4,
            "stem_width": 8,
        },
        "vary": {"final": {"choices": [False, True]}},
    },
    "train": {"steps": 4, "batch_size": 8, "lr": 2e-3, "evaluations": 2, "precision": "float32"},
    "seeds": 2,
}
