"""Draws a posed person, from back to front: limbs, garments, hair and bag."""

import numpy as np

from cion_jax.street import raster
from cion_jax.street.patterns import cloth
from cion_jax.street.people import Garment, Person
from cion_jax.street.pose import Box, Pose


def draw_person(canvas: np.ndarray, person: Person, pose: Pose, box: Box, light: float) -> None:
    """Draws a person into all images of a canvas `[3, crops, height, width]`.

    `light` in [-1, 1] is the direction of the light (negative: from the left).
    """
    _Figure(canvas, person, pose, box, light).draw()


class _Figure:
    def __init__(self, canvas: np.ndarray, person: Person, pose: Pose, box: Box, light: float):
        self.canvas, self.person, self.pose, self.box = canvas, person, pose, box
        self.light = np.float32(light)
        self.joints = pose.joints
        self.front = np.cos(pose.azimuth)  # 1: seen from the front, -1: from the back
        self.side = np.sin(pose.azimuth)  # 1: faces right
        self.tall = box.height
        self.wide = box.height * box.stretch * person.build

    def draw(self) -> None:
        near, back = self.pose.near, -float(self.front.mean())  # back > 0: the back is towards the camera
        parts = [(0.0, self._trunk), (0.07, self._head)]
        parts += [(1.5 * near[f"{side} elbow"], lambda side=side: self._arm(side)) for side in ("left", "right")]
        if self.person.bag == "backpack":
            parts.append((0.05 if back > 0 else -0.05, self._backpack))
        if self.person.hair in ("long", "bob"):
            parts.append((0.06 if back > -0.3 else -0.06, self._fall_of_hair))
        self._shadow()
        for side in sorted(("left", "right"), key=lambda side: near[f"{side} hip"]):
            self._leg(side)
        if "skirt" in self.person.lower_kind:
            self._skirt()
        for _, draw_part in sorted(parts, key=lambda part: part[0]):
            draw_part()
        self._carried_bag()

    # Colour and geometry helpers shared by all parts.

    def _paint(self, shape: raster.Shape, colour, roundness: float = 0.22) -> None:
        """Paints a shape, shaded darker where a round body turns away from the light."""
        shade = shape.across + self.light
        shade *= shape.across
        shade *= -np.float32(roundness)
        shade += 1
        raster.paint(self.canvas, shape, np.asarray(colour, np.float32), shade)

    def _wear(self, shape: raster.Shape, garment: Garment) -> None:
        self._paint(shape, cloth(garment, shape, self.pose.azimuth))

    def _limb(self, start: str, end: str, start_width: float, end_width: float) -> raster.Shape:
        points = self.joints[start], self.joints[end]
        return raster.capsule(self.canvas, *points, start_width * self.wide, end_width * self.wide)

    def _ellipse(self, centre: np.ndarray, half_width, half_height) -> raster.Shape:
        return raster.ellipse(self.canvas, centre, half_width, half_height)

    def _body_half(self, half_width: float, half_depth: float) -> np.ndarray:
        """Returns half the apparent width of an elliptic body as seen from the camera, in pixels."""
        return np.hypot(half_width * self.front, half_depth * self.side) * self.wide

    def _beside(self, point: np.ndarray, right, down) -> np.ndarray:
        """Returns a point offset to the right and downwards, in pixels."""
        return point + np.stack(np.broadcast_arrays(right, down), -1).astype(np.float32)

    def _below(self, joint: str, share: float) -> np.ndarray:
        """Returns the point below a joint by `share` of the person's height."""
        return self._beside(self.joints[joint], 0, share * self.tall)

    # Body and clothes, from the ground up.

    def _shadow(self) -> None:
        middle = np.stack([self.box.foot_x, self.box.foot_y - 0.01 * self.tall], 1)
        shape = self._ellipse(middle, 0.16 * self.wide, 0.022 * self.tall)
        region = self.canvas[:, :, shape.window[0], shape.window[1]]
        region *= 1 - 0.5 * shape.coverage

    def _leg(self, side: str) -> None:
        person, trousers = self.person, self.person.lower_kind == "trousers"
        self._paint(self._limb(f"{side} ankle", f"{side} toe", 0.024, 0.018), person.shoes)
        if trousers:
            self._wear(self._limb(f"{side} knee", f"{side} ankle", 0.038, 0.03), person.lower)
        else:
            self._paint(self._limb(f"{side} knee", f"{side} ankle", 0.034, 0.022), person.skin)
        thigh = self._limb(f"{side} hip", f"{side} knee", 0.054, 0.036)
        if trousers or person.lower_kind == "shorts":
            self._wear(thigh, person.lower)
        else:
            self._paint(thigh, person.skin)

    def _skirt(self) -> None:
        left, right = self.joints["left knee"], self.joints["right knee"]
        bottom, flare = (left + right) / 2, 0.105
        if self.person.lower_kind == "long skirt":
            bottom = 0.35 * bottom + 0.325 * (self.joints["left ankle"] + self.joints["right ankle"])
            flare = 0.115
        hem = flare * self.wide + 0.3 * np.abs(left[:, 0] - right[:, 0])
        waist = self._body_half(0.085, 0.07)
        self._wear(raster.trapezoid(self.canvas, self._below("hip", -0.05), bottom, waist, hem), self.person.lower)

    def _trunk(self) -> None:
        person = self.person
        self._paint(self._limb("neck", "shoulders", 0.032, 0.036), person.skin)
        top, bottom = self._below("shoulders", -0.035), self._below("hip", 0.03 + person.hem)
        shoulders, hips = self._body_half(0.13, 0.085), self._body_half(0.1, 0.08) * (1 + person.hem)
        shape = raster.trapezoid(self.canvas, top, bottom, shoulders, hips, corner=0.03 * float(self.tall.mean()))
        self._wear(shape, person.upper)
        if person.inner is not None:
            self._opening(shape)
        if person.bag == "backpack" and float(self.front.mean()) > 0.3:
            self._straps()

    def _opening(self, trunk: raster.Shape) -> None:
        """Draws the strip at the front where an open jacket shows the inner garment."""
        around = np.arcsin(trunk.across) - self.pose.azimuth.astype(np.float32).reshape(-1, 1, 1)
        strip = np.clip((np.cos(around) - 0.93) * 20 + 0.5, 0, 1) * trunk.coverage
        self._paint(raster.Shape(trunk.window, strip, trunk.across, trunk.along), self.person.inner)

    def _arm(self, side: str) -> None:
        person = self.person
        self._paint(self._ellipse(self.joints[f"{side} hand"], 0.022 * self.wide, 0.024 * self.wide), person.skin)
        forearm = self._limb(f"{side} elbow", f"{side} hand", 0.03, 0.022)
        upper_arm = self._limb(f"{side} shoulder", f"{side} elbow", 0.042, 0.034)
        for shape, covered in ((forearm, person.sleeves == "long"), (upper_arm, person.sleeves != "none")):
            if covered:
                self._wear(shape, person.upper)
            else:
                self._paint(shape, person.skin)

    # The head.

    def _head(self) -> None:
        person, head = self.person, self.joints["head"]
        width, height = 0.058 * self.tall * self.box.stretch, 0.075 * self.tall
        if person.hair == "bald":
            self._paint(self._ellipse(head, width, height), person.skin)
            return
        self._paint(self._ellipse(head, 1.12 * width, 1.12 * height), person.hair_colour)
        if person.hair == "bun":
            bun = self._beside(head, -self.side * width, -1.05 * height)
            self._paint(self._ellipse(bun, 0.5 * width, 0.42 * height), person.hair_colour)
        self._face(head, width, height)
        if person.hair == "cap":
            brim = self._beside(head, 0.7 * self.side * width, -0.35 * height)
            shape = self._ellipse(brim, width * (0.75 + 0.35 * np.abs(self.side)), 0.16 * height)
            self._paint(shape, 0.8 * np.array(person.hair_colour))

    def _face(self, head: np.ndarray, width: np.ndarray, height: np.ndarray) -> None:
        shown = np.clip(self.front + 0.45, 0, 1)  # 0 from behind, where the face is hidden
        if not shown.any():
            return
        middle = self._beside(head, (0.3 + 0.25 * (1 - shown)) * self.side * width, 0.2 * height)
        face = self._ellipse(middle, width * (0.25 + 0.6 * shown), 0.8 * height)
        coverage = face.coverage * np.minimum(3 * shown, 1).astype(np.float32).reshape(-1, 1, 1)
        self._paint(raster.Shape(face.window, coverage, face.across, face.along), self.person.skin)

    def _fall_of_hair(self) -> None:
        length = 0.15 if self.person.hair == "long" else 0.075
        half = 0.062 * self.tall * self.box.stretch
        back = -0.45 * self.side * half
        top, bottom = (
            self._beside(self.joints["head"], back, 0),
            self._beside(self._below("head", length), back, 0),
        )
        shape = raster.trapezoid(self.canvas, top, bottom, half * 1.02, half * 1.1, corner=0.4 * float(half.mean()))
        self._paint(shape, self.person.hair_colour)

    # Bags.

    def _backpack(self) -> None:
        back = -0.105 * self.side * self.wide
        top, bottom = (self._beside(self._below("shoulders", share), back, 0) for share in (-0.01, 0.22))
        half = self._body_half(0.095, 0.055)
        shape = raster.trapezoid(self.canvas, top, bottom, 0.9 * half, half, corner=0.03 * float(self.tall.mean()))
        self._paint(shape, self.person.bag_colour)

    def _straps(self) -> None:
        """Draws a backpack's two straps, which are what is visible from the front."""
        for side in ("left", "right"):
            start = 0.45 * self.joints[f"{side} shoulder"] + 0.55 * self._below("shoulders", -0.03)
            self._strap(start, self._beside(start, 0, 0.15 * self.tall))

    def _strap(self, start: np.ndarray, end: np.ndarray) -> None:
        shape = raster.capsule(self.canvas, start, end, 0.011 * self.wide, 0.011 * self.wide)
        self._paint(shape, self.person.bag_colour, roundness=0.0)

    def _carried_bag(self) -> None:
        """Draws a bag in the hand, or at the hip with a strap to the opposite shoulder."""
        side, other = ("left", "right") if self.person.bag_side > 0 else ("right", "left")
        if self.person.bag == "handbag":
            top = self.joints[f"{side} hand"]
        elif self.person.bag == "shoulder":
            top = 0.5 * (self.joints[f"{side} elbow"] + self.joints[f"{side} hip"])
            self._strap(self.joints[f"{other} shoulder"], top)
        else:
            return
        half = self._body_half(0.035, 0.07)
        bottom = self._beside(top, 0, 0.1 * self.tall)
        self._paint(raster.trapezoid(self.canvas, top, bottom, 0.85 * half, half, 2.0), self.person.bag_colour)
