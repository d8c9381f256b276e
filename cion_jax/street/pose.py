"""Joint positions of a walking person, projected into the image."""

import dataclasses

import numpy as np

from cion_jax.street.people import Person

# Heights above the ground and lengths, in body heights.
HIP, SHOULDER, NECK, HEAD = 0.50, 0.80, 0.85, 0.925
THIGH, SHIN, FOOT = 0.23, 0.23, 0.075
UPPER_ARM, FOREARM = 0.17, 0.16
HIP_SPREAD, SHOULDER_SPREAD = 0.052, 0.118
SOLE = 0.03  # height of the standing leg's ankle above the ground


@dataclasses.dataclass(frozen=True)
class Box:
    """Position of a person in the images: feet and height, in pixels, each [crops].

    The images may be crops or full video frames.
    """

    foot_x: np.ndarray
    foot_y: np.ndarray
    height: np.ndarray
    stretch: float  # horizontal stretch of the person


@dataclasses.dataclass(frozen=True)
class Pose:
    joints: dict[str, np.ndarray]  # [crops, 2]: (x, y) in pixels
    near: dict[str, float]  # mean offset of each joint towards the camera, in body heights
    azimuth: np.ndarray  # [crops], radians: 0 faces the camera, pi/2 faces right, pi shows the back


def walk_pose(person: Person, azimuth: np.ndarray, phase: np.ndarray, pitch: float, box: Box) -> Pose:
    """Returns the pose of a walking person.

    `azimuth` [crops] is the direction the person faces; `phase` [crops] advances by 2 pi every two steps; `pitch` is
    the camera's downward tilt; all in radians.
    """
    body = _point(0, 0, np.array([HIP * person.legs, SHOULDER, NECK, HEAD])[:, None], phase)
    body[2:, :, 1] += 0.015  # neck and head lean slightly forward
    names = ["hip", "shoulders", "neck", "head"]
    points = [*body]
    for side, sign, step in (("left", 1.0, phase), ("right", -1.0, phase + np.pi)):
        limbs = _leg(person, sign, step) | _arm(sign * person.build, -0.8 * person.swing * np.sin(step))
        names += [f"{side} {joint}" for joint in limbs]
        points += limbs.values()
    stacked = np.stack(points)  # [joints, crops, (left, forward, up)]
    ankles = stacked[names.index("left ankle"), :, 2], stacked[names.index("right ankle"), :, 2]
    stacked[..., 2] += SOLE - np.minimum(*ankles)  # one foot is always on the ground
    seen, near = _project(stacked, azimuth, pitch, box)
    return Pose(dict(zip(names, seen, strict=True)), dict(zip(names, near.mean(1).tolist())), azimuth)


def _leg(person: Person, sign: float, step: np.ndarray) -> dict[str, np.ndarray]:
    swing = person.swing * np.sin(step)
    bent = swing - 0.15 - 1.4 * person.swing * np.maximum(0, np.cos(step))  # knees only bend backwards
    thigh, shin = THIGH * person.legs, SHIN * person.legs
    hip = _point(sign * HIP_SPREAD, 0, HIP * person.legs, step)
    knee = hip + _point(0, thigh * np.sin(swing), -thigh * np.cos(swing), step)
    ankle = knee + _point(0, shin * np.sin(bent), -shin * np.cos(bent), step)
    return {"hip": hip, "knee": knee, "ankle": ankle, "toe": ankle + _point(0.01 * sign, FOOT, -0.015, step)}


def _arm(side: float, swing: np.ndarray) -> dict[str, np.ndarray]:
    bent = swing + 0.35  # elbows only bend forwards
    shoulder = _point(side * SHOULDER_SPREAD, 0, SHOULDER - 0.02, swing)
    elbow = shoulder + _point(side * 0.025, UPPER_ARM * np.sin(swing), -UPPER_ARM * np.cos(swing), swing)
    hand = elbow + _point(side * 0.005, FOREARM * np.sin(bent), -FOREARM * np.cos(bent), swing)
    return {"shoulder": shoulder, "elbow": elbow, "hand": hand}


def _point(left, forward, up, like: np.ndarray) -> np.ndarray:
    """Returns [..., crops, 3]: (left, forward, up) from the person's viewpoint, broadcast to the crops of `like`."""
    return np.stack(np.broadcast_arrays(left, forward, up + 0 * like), -1)


def _project(points: np.ndarray, azimuth: np.ndarray, pitch: float, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Projects [joints, crops, 3] to [joints, crops, 2] in pixels, and offsets towards the camera [joints, crops]."""
    left, forward, up = points[..., 0], points[..., 1], points[..., 2]
    right = left * np.cos(azimuth) + forward * np.sin(azimuth)
    near = forward * np.cos(azimuth) - left * np.sin(azimuth)
    x = box.foot_x + box.height * box.stretch * right
    y = box.foot_y - box.height * (up * np.cos(pitch) - near * np.sin(pitch))
    return np.stack([x, y], -1).astype(np.float32), near
