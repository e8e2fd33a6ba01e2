"""Which PCI bus takes which device: the connection rules, as data.

Learned by watching libvirt 9.0 place devices on pc and q35 machines of QEMU 7.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Flag, auto

from sterna.errors import XmlError

SLOTS = 32
FUNCTIONS = 8


class Plug(Flag):
    """What a device is, or what a bus takes."""

    PCI = auto()  # conventional endpoint
    PCIE = auto()  # PCI Express endpoint
    PCI_BRIDGE = auto()
    ROOT_PORT = auto()
    UPSTREAM = auto()
    DOWNSTREAM = auto()
    DMI_BRIDGE = auto()
    TO_PCI_BRIDGE = auto()
    PCI_EXPANDER = auto()
    PCIE_EXPANDER = auto()
    INTEGRATED = auto()  # part of the root complex


@dataclass(frozen=True, slots=True)
class BusRule:
    """slots: first and last; automatic: whether endpoints are put here unasked."""

    takes: Plug
    first_slot: int
    last_slot: int
    automatic: bool = True


_CONVENTIONAL = Plug.PCI | Plug.PCI_BRIDGE

BUS_RULES: dict[str, BusRule] = {
    "pci-root": BusRule(_CONVENTIONAL | Plug.PCI_EXPANDER, 1, SLOTS - 1),
    "pci-bridge": BusRule(_CONVENTIONAL, 1, SLOTS - 1),
    "pci-expander-bus": BusRule(_CONVENTIONAL, 0, SLOTS - 1, automatic=False),
    "pcie-root": BusRule(
        Plug.PCI | Plug.PCIE | Plug.ROOT_PORT | Plug.DMI_BRIDGE | Plug.PCIE_EXPANDER
        | Plug.TO_PCI_BRIDGE | Plug.INTEGRATED,
        1, SLOTS - 1, automatic=False,
    ),
    "pcie-expander-bus": BusRule(Plug.ROOT_PORT | Plug.DMI_BRIDGE, 0, SLOTS - 1, automatic=False),
    "dmi-to-pci-bridge": BusRule(_CONVENTIONAL, 0, SLOTS - 1, automatic=False),
    "pcie-to-pci-bridge": BusRule(_CONVENTIONAL, 1, SLOTS - 1),
    "pcie-root-port": BusRule(Plug.PCIE | Plug.UPSTREAM | Plug.TO_PCI_BRIDGE, 0, 0),
    "pcie-switch-upstream-port": BusRule(Plug.DOWNSTREAM, 0, SLOTS - 1),
    "pcie-switch-downstream-port": BusRule(Plug.PCIE | Plug.UPSTREAM | Plug.TO_PCI_BRIDGE, 0, 0),
}  # fmt: skip

CONTROLLER_PLUG: dict[str, Plug] = {
    "pci-bridge": Plug.PCI_BRIDGE,
    "pci-expander-bus": Plug.PCI_EXPANDER,
    "pcie-expander-bus": Plug.PCIE_EXPANDER,
    "dmi-to-pci-bridge": Plug.DMI_BRIDGE,
    "pcie-to-pci-bridge": Plug.TO_PCI_BRIDGE,
    "pcie-root-port": Plug.ROOT_PORT,
    "pcie-switch-upstream-port": Plug.UPSTREAM,
    "pcie-switch-downstream-port": Plug.DOWNSTREAM,
}

AGGREGATED = Plug.ROOT_PORT  # several of these share a slot, a function each
BEHIND_ANY_BUS = (
    Plug.ROOT_PORT | Plug.DMI_BRIDGE | Plug.PCI_EXPANDER | Plug.PCIE_EXPANDER | Plug.INTEGRATED
)


@dataclass(slots=True)
class Slot:
    functions: int = 0  # bit n: function n is taken
    aggregate: bool = False


@dataclass(slots=True)
class Bus:
    """One PCI bus and what is on it. `model` is that of the controller that opens it."""

    model: str
    slots: dict[int, Slot] = field(default_factory=dict)

    @property
    def rule(self) -> BusRule:
        return BUS_RULES[self.model]

    def functions(self, slot: int) -> int:
        found = self.slots.get(slot)
        return found.functions if found is not None else 0

    def take(self, slot: int, function: int, *, aggregate: bool = False) -> None:
        found = self.slots.setdefault(slot, Slot())
        found.functions |= 1 << function
        found.aggregate = found.aggregate or aggregate

    def free_place(self, plug: Plug) -> tuple[int, int] | None:
        """First free slot (and function) for a device of this kind; None when it is full."""
        aggregate = bool(plug & AGGREGATED)
        for slot in range(self.rule.first_slot, self.rule.last_slot + 1):
            found = self.slots.get(slot)
            if found is None or not found.functions:
                return slot, 0
            if aggregate and found.aggregate:
                for function in range(FUNCTIONS):
                    if not found.functions >> function & 1:
                        return slot, function
        return None

    def accepts(self, plug: Plug) -> bool:
        """Whether a device of this kind may be put here unasked."""
        if not plug & self.rule.takes:
            return False
        return self.rule.automatic or bool(plug & (BEHIND_ANY_BUS | Plug.PCI_BRIDGE))


class PciBuses:
    """All buses of one machine, by index. In a dry run, buses are added when places run out."""

    def __init__(self, models: list[str], *, grow: bool) -> None:
        self.buses = [Bus(model) for model in models]
        self.grow = grow

    @property
    def express(self) -> bool:
        return bool(self.buses) and self.buses[0].model == "pcie-root"

    def reserve(self, bus: int, slot: int, function: int, plug: Plug) -> int:
        """Take a place that was asked for. Returns its bus.

        That is another one only where the bus had to be added and became the port of the bridge
        that a conventional device needs.
        """
        if bus >= len(self.buses):
            if not self.grow:
                raise XmlError(
                    f"Invalid PCI address 0000:{bus:02x}:{slot:02x}.{function:x}."
                    f" bus must be <= {len(self.buses) - 1}"
                )
            while bus >= len(self.buses):
                self._add_bus(plug)
            if plug & Plug.PCI and self.buses[bus].model == "pcie-root-port":
                bus += 1
        where = f"0000:{bus:02x}:{slot:02x}.{function:x}"
        rule = self.buses[bus].rule
        if slot > rule.last_slot:
            raise XmlError(f"Invalid PCI address {where}. slot must be <= {rule.last_slot}")
        if slot < rule.first_slot:
            raise XmlError(f"Invalid PCI address {where}. slot must be >= {rule.first_slot}")
        if function >= FUNCTIONS:
            raise XmlError(f"Invalid PCI address {where}. function must be <= 7")
        if self.buses[bus].functions(slot) >> function & 1:
            raise XmlError(f"Attempted double use of PCI Address {where}")
        self.buses[bus].take(slot, function, aggregate=bool(plug & AGGREGATED))
        return bus

    def next_place(self, plug: Plug) -> tuple[int, int, int]:
        """Take the first free place for a device: bus, slot, function."""
        for index, bus in enumerate(self.buses):
            if bus.accepts(plug):
                place = bus.free_place(plug)
                if place is not None:
                    bus.take(*place, aggregate=bool(plug & AGGREGATED))
                    return index, *place
        if not self.grow:
            raise XmlError("No more available PCI slots")
        self._add_bus(plug)
        index = len(self.buses) - 1
        place = self.buses[index].free_place(plug)
        if place is None or not self.buses[index].accepts(plug):
            raise XmlError("No more available PCI slots")
        self.buses[index].take(*place)
        return index, *place

    def _add_bus(self, plug: Plug) -> None:
        """A conventional device on an Express machine needs a bridge, which needs a port."""
        if plug & (Plug.PCI | Plug.PCI_BRIDGE):
            conventional = any(bus.rule.takes & Plug.PCI_BRIDGE for bus in self.buses)
            if self.express and not conventional:
                port = Bus("pcie-root-port")
                port.take(0, 0)
                self.buses += [port, Bus("pcie-to-pci-bridge")]
            else:
                # Its own slot is found in the real run: controllers are placed before endpoints.
                self.buses.append(Bus("pci-bridge"))
        elif plug & (Plug.PCIE | Plug.TO_PCI_BRIDGE | Plug.UPSTREAM) and self.express:
            self.buses.append(Bus("pcie-root-port"))
        else:
            raise XmlError("a PCI slot is needed that this machine type does not have")
