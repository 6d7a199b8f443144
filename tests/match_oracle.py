"""Algorithm 1 once more, patient by patient, in plain lists and loops: slow, obvious, and sharing nothing with ours."""

import math
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class PlainMatching:
    """Nodes and groups as lists of rows, each in the order that numbers them; the rest by row."""

    nodes: list = field(default_factory=list)
    groups: list = field(default_factory=list)
    state: dict = field(default_factory=dict)
    confidence: dict = field(default_factory=dict)
    edges: dict = field(default_factory=dict)
    """(from row, to row, kind) → (distance, confidence)"""
    vanished: list = field(default_factory=list)
    """(patient, number of the group, study)"""


def match_plainly(patients, studies, vectors, t1, t2):
    """Lists of codes, codes and lists of floats → a `PlainMatching`."""
    answer = PlainMatching()
    rows_of = defaultdict(lambda: defaultdict(list))
    for row, (patient, study) in enumerate(zip(patients, studies, strict=True)):
        rows_of[patient][study].append(row)
    for code in sorted(rows_of):
        times = sorted(rows_of[code])
        patient = Patient([rows_of[code][time] for time in times], vectors, t1, t2)
        answer.vanished += [(code, len(answer.groups) + group, times[time]) for group, time in patient.vanished]
        answer.groups += [[row for node in group for row in patient.nodes[node]] for group in patient.groups]
        answer.nodes += patient.nodes
        answer.edges |= patient.edges
        for node, rows in enumerate(patient.nodes):
            for row in rows:
                answer.state[row] = patient.state[node]
                answer.confidence[row] = patient.best[node]
    return answer


class Patient:
    """One patient's nodes by number, `time` being the place of the study among the patient's."""

    def __init__(self, by_study, vectors, t1, t2):
        self.t2 = t2
        self.edges = {}
        self.nodes, self.time, self.means = [], [], []
        for time, rows in enumerate(by_study):
            for members in flood(rows, self.merge(rows, vectors, t1)):
                self.nodes.append(members)
                self.time.append(time)
                columns = zip(*(vectors[row] for row in members), strict=True)
                self.means.append([sum(column) / len(members) for column in columns])
        self.measure(len(by_study))
        self.best = [math.nan] * len(self.nodes)
        self.groups = flood(range(len(self.nodes)), self.exclude())
        self.group_of = {node: number for number, group in enumerate(self.groups) for node in group}
        self.first = [min(self.time[node] for node in group) for group in self.groups]
        self.last = [max(self.time[node] for node in group) for group in self.groups]
        self.state = [self.plain_state(node) for node in range(len(self.nodes))]
        self.vanished = []
        for group in range(len(self.groups)):
            self.follow(group, len(by_study))

    def merge(self, rows, vectors, t1):
        linked = {row: [] for row in rows}
        for place, one in enumerate(rows):
            for other in rows[place + 1 :]:
                distance = math.dist(vectors[one], vectors[other])
                if distance < t1:
                    linked[one].append(other)
                    linked[other].append(one)
                    self.edges[one, other, "same_study"] = (distance, 1 - distance / (2 * t1))
        return linked

    def measure(self, times):
        count = len(self.nodes)
        self.in_study = [[node for node in range(count) if self.time[node] == time] for time in range(times)]
        self.distance = [[math.inf] * count for _ in range(count)]
        for one in range(count):
            for other in range(one + 1, count):
                if self.time[one] != self.time[other]:
                    apart = math.dist(self.means[one], self.means[other])
                    self.distance[one][other] = self.distance[other][one] = apart
        # `min` takes the first of equals, which is the one with the lowest row.
        self.nearest = [[min(there, key=mine.__getitem__) for there in self.in_study] for mine in self.distance]

    def exclude(self):
        linked = {node: [] for node in range(len(self.nodes))}
        for one in range(len(self.nodes)):
            for time in range(self.time[one] + 1, len(self.in_study)):
                other = self.nearest[one][time]
                if self.distance[one][other] <= self.t2 and self.nearest[other][self.time[one]] == one:
                    linked[one].append(other)
                    linked[other].append(one)
                    self.keep(one, other, "same_lesion")
        return linked

    def keep(self, one, other, kind):
        sure = self.confidence(one, other)
        self.edges[self.nodes[one][0], self.nodes[other][0], kind] = (self.distance[one][other], sure)
        for node in (one, other):
            self.best[node] = sure if math.isnan(self.best[node]) else max(self.best[node], sure)

    def confidence(self, one, other):
        apart = self.distance[one][other]
        closeness = 1 - apart / (2 * self.t2) if self.t2 > 0 else 1.0
        rivals = [self.distance[one][node] for node in self.in_study[self.time[other]] if node != other]
        rivals += [self.distance[other][node] for node in self.in_study[self.time[one]] if node != one]
        if not rivals:
            return math.sqrt(closeness)
        second = min(rivals)
        return math.sqrt(closeness * (second / (apart + second) if apart + second > 0 else 0.5))

    def plain_state(self, node):
        if self.time[node] == 0:
            return "baseline"
        return "persistent" if self.first[self.group_of[node]] < self.time[node] else "new"

    def follow(self, group, times):
        first, last = self.first[group], self.last[group]
        taken_in = False
        for node in self.groups[group]:
            if self.time[node] == last and last + 1 < times:
                other = self.nearest[node][last + 1]
                if self.near_another(node, other, group) and self.first[self.group_of[other]] <= last:
                    taken_in = True
                    self.state[other] = "merged"
                    self.keep(node, other, "merged")
            if self.time[node] == first and first > 0:
                other = self.nearest[node][first - 1]
                if self.near_another(node, other, group) and self.last[self.group_of[other]] >= first:
                    self.state[node] = "split"
                    self.keep(other, node, "split")
        if last + 1 < times and not taken_in:
            self.vanished.append((group, last + 1))

    def near_another(self, node, other, group):
        return self.distance[node][other] <= self.t2 and self.group_of[other] != group


def flood(things, linked):
    """Connected things, sorted; the lists in the order of their first members."""
    seen, found = set(), []
    for thing in things:
        if thing in seen:
            continue
        seen.add(thing)
        members, waiting = [], [thing]
        while waiting:
            one = waiting.pop()
            members.append(one)
            for other in linked[one]:
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        found.append(sorted(members))
    return found
