"""The training stage, once for any number of students: shards -> students.

An image's way: `order` says which row comes at which step, `stock` reads it, `data` decodes it onto
the device, `views` cuts the view that the student sees, `targets` has the teacher's answer to it
(asked along, or kept by `asking`), and `train`, the loop, hands both to each `learner`: one student
with its method (`method`, methods/, losses/), optimizer (`optim`, `muon`) and checkpoint.

`setting` builds all that from what `command` was told; `recipe` is how long and how fast, `pace`
when it logs and saves, `group` who trains together. `reuse` is the teacher's own classifier in a
student, `frozen` a teacher made fast, `lineage` where images came from. evaluation/ says what a
student is worth, export/ ships it, students/ holds nets; `importing` and `teach` make teachers.
"""
