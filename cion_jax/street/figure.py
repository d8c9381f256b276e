"""Draws a posed person: limbs, garments, hair and bag, from the far side of the body to the near one."""

from collections.abc import Callable

import numpy as np

from cion_jax.street import raster
from cion_jax.street.patterns import cloth
from cion_jax.street.people import Garment, Person
from cion_jax.street.pose import Box, Pose

_FACE_FRONT = np.float32(0.3)  # how far the face lies in front of the head's middle, in half-widths


def draw_person(canvas: np.ndarray, person: Person, pose: Pose, box: Box, light: float) -> None:
    """Draws a person on all crops of a canvas `[3, crops, height, width]`.

    `light` in [-1, 1] is the side the light falls from (negative: the left).
    """
    _Figure(canvas, person, pose, box, light).draw()


class _Figure:
    def __init__(self, canvas: np.ndarray, person: Person, pose: Pose, box: Box, light: float):
        self.canvas, self.person, self.box, self.light = canvas, person, box, light
        self.joints = {name: joint[:, :2] for name, joint in pose.joints.items()}
        self.near = {name: float(joint[:, 2].mean()) for name, joint in pose.joints.items()}
        self.azimuth = pose.azimuth
        self.front = np.cos(pose.azimuth)  # 1: seen from the front, -1: from the back
        self.side = np.sin(pose.azimuth)
        self.scale = box.height * box.stretch * person.build

    def draw(self) -> None:
        back_near = -float(self.front.mean())  # how near the person's back is
        parts: list[tuple[float, Callable[[], None]]] = [(0.0, self._trunk), (0.07, self._head)]
        for side in ("left", "right"):
            parts.append((self.near[f"{side} elbow"] * 1.5, lambda side=side: self._arm(side)))
        if self.person.bag == "backpack":
            parts.append((0.05 * np.sign(back_near), self._backpack))
        if self.person.hair in ("long", "bob"):
            parts.append((0.06 if back_near > -0.3 else -0.06, self._fall_of_hair))
        self._shadow()
        for side in sorted(("left", "right"), key=lambda side: self.near[f"{side} hip"]):
            self._leg(side)
        self._skirt()
        for _, draw in sorted(parts, key=lambda part: part[0]):
            draw()
        self._carried_bag()

    def _shade(self, shape: raster.Shape, strength: float = 0.22) -> np.ndarray:
        """Darker where a round body turns away from the light: [crops, h, w]."""
        return 1 - strength * shape.across * shape.across - strength * self.light * shape.across

    def _paint(self, shape: raster.Shape, colour, strength: float = 0.22) -> None:
        colour = np.asarray(colour, np.float32)
        colour = colour.reshape(3, 1, 1, 1) if colour.ndim == 1 else colour
        raster.paint(self.canvas, shape, colour * self._shade(shape, strength))

    def _wear(self, shape: raster.Shape, garment: Garment) -> None:
        self._paint(shape, cloth(garment, shape, self.azimuth))

    def _limb(self, start: str, end: str, start_width: float, end_width: float) -> raster.Shape:
        points = self.joints[start], self.joints[end]
        return raster.capsule(self.canvas, *points, start_width * self.scale, end_width * self.scale)

    def _shadow(self) -> None:
        middle = np.stack([self.box.foot_x, self.box.foot_y - 0.01 * self.box.height], 1)
        shape = raster.ellipse(self.canvas, middle, 0.16 * self.scale, 0.022 * self.box.height)
        region = self.canvas[:, :, shape.window[0], shape.window[1]]
        region *= 1 - 0.5 * shape.coverage

    def _leg(self, side: str) -> None:
        person, kind = self.person, self.person.lower_kind
        self._paint(self._limb(f"{side} ankle", f"{side} toe", 0.024, 0.018), person.shoes)
        shin = self._limb(f"{side} knee", f"{side} ankle", 0.034, 0.022)
        thigh = self._limb(f"{side} hip", f"{side} knee", 0.054, 0.036)
        if kind == "trousers":
            self._wear(self._limb(f"{side} knee", f"{side} ankle", 0.038, 0.03), person.lower)
        else:
            self._paint(shin, person.skin)
        if kind in ("trousers", "shorts"):
            self._wear(thigh, person.lower)
        else:
            self._paint(thigh, person.skin)

    def _skirt(self) -> None:
        if self.person.lower_kind not in ("skirt", "long skirt"):
            return
        long = self.person.lower_kind == "long skirt"
        knees = (self.joints["left knee"] + self.joints["right knee"]) / 2
        ankles = (self.joints["left ankle"] + self.joints["right ankle"]) / 2
        bottom = knees * 0.35 + ankles * 0.65 if long else knees
        top = self.joints["hip"] - np.stack([0 * self.box.height, 0.05 * self.box.height], 1)
        flare = (0.115 if long else 0.105) * self.scale + 0.3 * np.abs(
            self.joints["left knee"][:, 0] - self.joints["right knee"][:, 0]
        )
        shape = raster.trapezoid(self.canvas, top.astype(np.float32), bottom, self._depth(0.085, 0.07), flare)
        self._wear(shape, self.person.lower)

    def _depth(self, half_width: float, half_depth: float) -> np.ndarray:
        """Half of what an elliptic body measures across from where the camera stands, in pixels."""
        return np.sqrt((half_width * self.front) ** 2 + (half_depth * self.side) ** 2) * self.scale

    def _down(self, joint: str, share: float) -> np.ndarray:
        """A point `share` heights below a joint."""
        point = self.joints[joint].copy()
        point[:, 1] += share * self.box.height
        return point

    def _trunk(self) -> None:
        person = self.person
        self._paint(self._limb("neck", "shoulders", 0.032, 0.036), person.skin)
        top, bottom = self._down("shoulders", -0.035), self._down("hip", 0.03 + person.hem)
        hips = self._depth(0.1, 0.08) * (1 + person.hem)
        shape = raster.trapezoid(self.canvas, top, bottom, self._depth(0.13, 0.085), hips, corner=4.0)
        self._wear(shape, person.upper)
        if person.inner is not None:
            self._opening(shape)
        if person.bag == "backpack":
            self._straps()

    def _opening(self, trunk: raster.Shape) -> None:
        """The strip at the front where an open jacket shows what is under it."""
        around = np.arcsin(trunk.across) - self.azimuth.reshape(-1, 1, 1).astype(np.float32)
        strip = np.clip((np.cos(around) - 0.93) * 20 + 0.5, 0, 1) * trunk.coverage
        shape = raster.Shape(trunk.window, strip, trunk.across, trunk.along)
        self._paint(shape, self.person.inner)

    def _arm(self, side: str) -> None:
        person = self.person
        sleeve = person.sleeves
        self._paint(
            raster.ellipse(self.canvas, self.joints[f"{side} hand"], 0.022 * self.scale, 0.024 * self.scale),
            person.skin,
        )
        forearm = self._limb(f"{side} elbow", f"{side} hand", 0.03, 0.022)
        upper = self._limb(f"{side} shoulder", f"{side} elbow", 0.042, 0.034)
        for shape, covered in ((forearm, sleeve >= 1), (upper, sleeve > 0)):
            if covered:
                self._wear(shape, person.upper)
            else:
                self._paint(shape, person.skin)

    def _head(self) -> None:
        person, head = self.person, self.joints["head"]
        width, height = 0.058 * self.box.height * self.box.stretch, 0.075 * self.box.height
        bald = person.hair == "bald"
        volume = 1.0 if bald else 1.12
        skull = raster.ellipse(self.canvas, head, width * volume, height * volume)
        self._paint(skull, person.skin if bald else person.hair_colour)
        if person.hair == "bun":
            bun = head + np.stack([-self.side * width, -height * 1.05], 1).astype(np.float32)
            self._paint(raster.ellipse(self.canvas, bun, width * 0.5, height * 0.42), person.hair_colour)
        if not bald:
            self._face(head, width, height)
        if person.hair == "cap":
            self._brim(head, width, height)

    def _face(self, head: np.ndarray, width: np.ndarray, height: np.ndarray) -> None:
        shown = np.clip(self.front + 0.45, 0, 1)  # nothing of the face shows from behind
        if not shown.any():
            return
        middle = head + np.stack([(0.3 + 0.25 * (1 - shown)) * self.side * width, 0.2 * height], 1)
        face = raster.ellipse(
            self.canvas, middle.astype(np.float32), width * (0.25 + 0.6 * shown), height * 0.8
        )
        faded = np.clip(shown * 3, 0, 1).astype(np.float32).reshape(-1, 1, 1)
        self._paint(
            raster.Shape(face.window, face.coverage * faded, face.across, face.along), self.person.skin
        )

    def _brim(self, head: np.ndarray, width: np.ndarray, height: np.ndarray) -> None:
        middle = head + np.stack([0.7 * self.side * width, -0.35 * height], 1).astype(np.float32)
        brim = raster.ellipse(self.canvas, middle, width * (0.75 + 0.35 * np.abs(self.side)), height * 0.16)
        self._paint(brim, 0.8 * np.array(self.person.hair_colour))

    def _fall_of_hair(self) -> None:
        length = 0.15 if self.person.hair == "long" else 0.075
        half = 0.062 * self.box.height * self.box.stretch
        back = np.stack([-self.side * half * 0.45, 0 * half], 1).astype(np.float32)
        top, bottom = self.joints["head"] + back, self._down("head", length) + back
        shape = raster.trapezoid(self.canvas, top, bottom, half * 1.02, half * 1.1, corner=3.0)
        self._paint(shape, self.person.hair_colour)

    def _backpack(self) -> None:
        shift = np.stack([-self.side * 0.105 * self.scale, 0 * self.scale], 1).astype(np.float32)
        top, bottom = self._down("shoulders", -0.01) + shift, self._down("shoulders", 0.22) + shift
        half = self._depth(0.095, 0.055)
        shape = raster.trapezoid(self.canvas, top, bottom, half * 0.9, half, corner=4.0)
        self._paint(shape, self.person.bag_colour)

    def _straps(self) -> None:
        """Seen from the front, a backpack is two straps."""
        if float(self.front.mean()) < 0.3:
            return
        for side in ("left", "right"):
            start = 0.45 * self.joints[f"{side} shoulder"] + 0.55 * self._down("shoulders", -0.03)
            end = start.copy()
            end[:, 1] += 0.15 * self.box.height
            strap = raster.capsule(self.canvas, start, end, 0.012 * self.scale, 0.012 * self.scale)
            self._paint(strap, self.person.bag_colour, strength=0.0)

    def _carried_bag(self) -> None:
        person = self.person
        side = "left" if person.bag_side > 0 else "right"
        other = "right" if side == "left" else "left"
        if person.bag == "handbag":
            top = self.joints[f"{side} hand"]
        elif person.bag == "shoulder":
            top = 0.5 * (self.joints[f"{side} elbow"] + self.joints[f"{side} hip"])
            strap = raster.capsule(
                self.canvas, self.joints[f"{other} shoulder"], top, 0.01 * self.scale, 0.01 * self.scale
            )
            self._paint(strap, person.bag_colour, strength=0.0)
        else:
            return
        half = self._depth(0.035, 0.07)
        bottom = top + np.array([[0, 0.1]], np.float32) * self.box.height[:, None]
        shape = raster.trapezoid(self.canvas, top, bottom.astype(np.float32), half * 0.85, half, corner=2.0)
        self._paint(shape, person.bag_colour)
