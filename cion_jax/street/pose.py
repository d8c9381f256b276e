"""Where the joints of a walking person are, as a camera sees them."""

import dataclasses

import numpy as np

from cion_jax.street.people import Person

# Heights above the ground and lengths, in heights of the person.
HIP, SHOULDER, NECK, HEAD = 0.50, 0.80, 0.85, 0.925
THIGH, SHIN = 0.23, 0.23
UPPER_ARM, FOREARM = 0.17, 0.16
HIP_SPREAD, SHOULDER_SPREAD = 0.052, 0.118


@dataclasses.dataclass(frozen=True)
class Pose:
    """Joints as `[crops, 3]`: right and down in pixels, and nearness to the camera in heights of the person."""

    joints: dict[str, np.ndarray]
    azimuth: np.ndarray  # [crops], radians: 0 faces the camera, pi/2 faces right, pi shows the back


@dataclasses.dataclass(frozen=True)
class Box:
    """Where a person stands in the crops: the feet, and the person's height, in pixels, each [crops].

    A scene renderer places people in whole frames with it just as the crop renderer does.
    """

    foot_x: np.ndarray
    foot_y: np.ndarray
    height: np.ndarray
    stretch: float  # how much wider than life the crop shows a person


def walk_pose(person: Person, azimuth: np.ndarray, phase: np.ndarray, pitch: float, box: Box) -> Pose:
    """Poses a person in mid-step.

    `phase` [crops] goes round once in two steps; `pitch` is the angle in radians by which the camera looks down.
    """
    body = {}
    hip = HIP * person.legs
    for name, side, step in (("left", 1.0, phase), ("right", -1.0, phase + np.pi)):
        swing = person.swing * np.sin(step)
        bend = 0.15 + 0.55 * np.maximum(0, np.cos(step)) * person.swing / 0.4
        knee = _point(side * HIP_SPREAD, THIGH * np.sin(swing), hip - THIGH * person.legs * np.cos(swing))
        ankle = knee + _point(0.0, SHIN * np.sin(swing - bend), -SHIN * person.legs * np.cos(swing - bend))
        body |= {f"{name} hip": _point(side * HIP_SPREAD, 0 * phase, hip), f"{name} knee": knee}
        body |= {
            f"{name} ankle": ankle,
            f"{name} toe": ankle + _point(side * 0.01, 0.075 + 0 * phase, -0.015),
        }
        body |= _arm(name, side * person.build, -0.8 * swing)
    lowest = np.minimum(body["left ankle"][:, 2], body["right ankle"][:, 2])
    body |= {"hip": _point(0, 0 * phase, hip), "shoulders": _point(0, 0 * phase, SHOULDER)}
    body |= {"neck": _point(0, 0.01 + 0 * phase, NECK), "head": _point(0, 0.02 + 0 * phase, HEAD)}
    rise = np.stack([0 * lowest, 0 * lowest, 0.03 - lowest], 1)
    joints = {name: _project(point + rise, azimuth, pitch, box) for name, point in body.items()}
    return Pose(joints, azimuth)


def _arm(name: str, side: float, swing: np.ndarray) -> dict[str, np.ndarray]:
    shoulder = _point(side * SHOULDER_SPREAD, 0 * swing, SHOULDER - 0.02)
    elbow = shoulder + _point(side * 0.025, UPPER_ARM * np.sin(swing), -UPPER_ARM * np.cos(swing))
    bent = swing + 0.35  # elbows only bend forwards
    hand = elbow + _point(side * 0.005, FOREARM * np.sin(bent), -FOREARM * np.cos(bent))
    return {f"{name} shoulder": shoulder, f"{name} elbow": elbow, f"{name} hand": hand}


def _point(left: float, forward: np.ndarray | float, up: np.ndarray | float) -> np.ndarray:
    """[crops, 3]: to the person's left, forwards, up."""
    return np.stack(np.broadcast_arrays(np.asarray(left, float), forward, up), -1)


def _project(point: np.ndarray, azimuth: np.ndarray, pitch: float, box: Box) -> np.ndarray:
    left, forward, up = point.T
    right = left * np.cos(azimuth) + forward * np.sin(azimuth)
    near = forward * np.cos(azimuth) - left * np.sin(azimuth)
    height = up * np.cos(pitch) - near * np.sin(pitch)
    x = box.foot_x + box.height * box.stretch * right
    return np.stack([x, box.foot_y - box.height * height, near], 1).astype(np.float32)
