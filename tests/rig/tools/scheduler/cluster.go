package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	daemon "k8s.io/kubernetes/pkg/controller/daemon"
	schedulercache "k8s.io/kubernetes/pkg/scheduler/backend/cache"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"
)

// cluster is what the scheduler would see: nodes with their pods in a snapshot that is made anew after every change,
// everything else through informers of a fake API server.
type cluster struct {
	ctx        context.Context
	nodes      []*v1.Node
	bound      []*v1.Pod
	pending    map[string]*v1.Pod
	daemonSets []*appsv1.DaemonSet
	lister     *currentSnapshot
	present    fwk.SharedLister
	// thoughts are kept until the cluster changes: many pods are asked for the same nodes.
	thoughts map[string]thought
	plugins  []fwk.Plugin
}

// thought is the cluster with one more node.
type thought struct {
	node     string
	snapshot fwk.SharedLister
}

// currentSnapshot is the lister that the plugins keep for their whole life.
type currentSnapshot struct{ fwk.SharedLister }

func judge(job *Job) ([]StepAnswer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c, err := newCluster(ctx, job.Objects)
	if err != nil {
		return nil, err
	}
	answers := make([]StepAnswer, 0, len(job.Steps))
	for i, step := range job.Steps {
		answer, err := c.step(&step)
		if err != nil {
			return nil, fmt.Errorf("step %d: %w", i, err)
		}
		answers = append(answers, answer)
	}
	return answers, nil
}

func newCluster(ctx context.Context, objects []json.RawMessage) (*cluster, error) {
	c := &cluster{ctx: ctx, pending: map[string]*v1.Pod{}, lister: &currentSnapshot{}}
	var others []runtime.Object
	for _, raw := range objects {
		object, err := decode(raw)
		if err != nil {
			return nil, err
		}
		switch object := object.(type) {
		case *v1.Node:
			c.nodes = append(c.nodes, object)
		case *v1.Pod:
			switch {
			case object.Status.Phase == v1.PodSucceeded || object.Status.Phase == v1.PodFailed:
				// The scheduler's informers leave ended pods out.
			case object.Spec.NodeName != "":
				c.bound = append(c.bound, object)
			default:
				c.pending[object.Namespace+"/"+object.Name] = object
			}
		case *appsv1.DaemonSet:
			c.daemonSets = append(c.daemonSets, object)
		default:
			others = append(others, object)
		}
	}
	c.refresh()
	assignDefaultClass(others)
	client := fake.NewClientset(others...)
	factory := informers.NewSharedInformerFactory(client, 0)
	var err error
	if c.plugins, err = newPlugins(ctx, client, factory, c.lister); err != nil {
		return nil, err
	}
	factory.StartWithContext(ctx)
	// The factory's own wait looks every 100 ms only.
	deadline := time.Now().Add(10 * time.Second)
	for !synced(factory) {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the informers did not sync")
		}
		time.Sleep(200 * time.Microsecond)
	}
	return c, nil
}

// assignDefaultClass gives unbound claims without a class the default one, as the volume controller does sooner or later.
func assignDefaultClass(objects []runtime.Object) {
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	for _, object := range objects {
		if class, ok := object.(*storagev1.StorageClass); ok {
			_ = indexer.Add(class)
		}
	}
	class, err := volumeutil.GetDefaultClass(storagelisters.NewStorageClassLister(indexer))
	if err != nil || class == nil {
		return
	}
	for _, object := range objects {
		claim, ok := object.(*v1.PersistentVolumeClaim)
		if ok && claim.Spec.VolumeName == "" && claim.Spec.StorageClassName == nil {
			claim.Spec.StorageClassName = &class.Name
		}
	}
}

func (c *cluster) refresh() {
	c.present = schedulercache.NewSnapshot(c.bound, c.nodes)
	c.lister.SharedLister = c.present
	c.thoughts = map[string]thought{}
}

// thinkOf shows the plugins the cluster with one more node, until the present one is shown again.
func (c *cluster) thinkOf(raw json.RawMessage) (string, error) {
	known, ok := c.thoughts[string(raw)]
	if !ok {
		node, started, err := c.join(raw, true)
		if err != nil {
			return "", err
		}
		nodes := append(append([]*v1.Node{}, c.nodes...), node)
		bound := append(append([]*v1.Pod{}, c.bound...), started...)
		known = thought{node.Name, schedulercache.NewSnapshot(bound, nodes)}
		c.thoughts[string(raw)] = known
	}
	c.lister.SharedLister = known.snapshot
	return known.node, nil
}

func (c *cluster) step(step *Step) (StepAnswer, error) {
	switch {
	case step.Add != nil:
		return StepAnswer{}, c.add(step.Add, true)
	case step.Bare != nil:
		return StepAnswer{}, c.add(step.Bare, false)
	case step.Remove != "":
		c.remove(step.Remove)
		return StepAnswer{}, nil
	case step.Place != nil:
		pod, ok := c.pending[step.Place.Pod]
		if !ok {
			return StepAnswer{}, fmt.Errorf("no pod %s is pending", step.Place.Pod)
		}
		refusals, err := c.place(pod, step.Place.Node)
		return StepAnswer{Nodes: []Refusals{refusals}}, err
	case step.Ask != nil:
		pod, ok := c.pending[step.Ask.Pod]
		if !ok {
			return StepAnswer{}, fmt.Errorf("no pod %s is pending", step.Ask.Pod)
		}
		answer := StepAnswer{}
		for _, raw := range step.Ask.Nodes {
			name, err := c.thinkOf(raw)
			if err != nil {
				return answer, err
			}
			refusals, _, err := c.filter(pod, name)
			if err != nil {
				return answer, err
			}
			answer.Nodes = append(answer.Nodes, refusals)
		}
		c.lister.SharedLister = c.present
		return answer, nil
	case step.AskThere != nil:
		pod, ok := c.pending[step.AskThere.Pod]
		if !ok {
			return StepAnswer{}, fmt.Errorf("no pod %s is pending", step.AskThere.Pod)
		}
		answer := StepAnswer{}
		for _, node := range step.AskThere.Nodes {
			refusals, _, err := c.filter(pod, node)
			if err != nil {
				return answer, err
			}
			answer.Nodes = append(answer.Nodes, refusals)
		}
		return answer, nil
	}
	return StepAnswer{}, fmt.Errorf("an empty step")
}

// add makes a node join, if wanted with the pods that start on it.
func (c *cluster) add(raw json.RawMessage, withDaemons bool) error {
	node, started, err := c.join(raw, withDaemons)
	if err != nil {
		return err
	}
	c.nodes = append(append([]*v1.Node{}, c.nodes...), node)
	c.bound = append(append([]*v1.Pod{}, c.bound...), started...)
	c.refresh()
	return nil
}

// join reads a node, with the pods that the DaemonSet controller would make for it if they are wanted.
func (c *cluster) join(raw json.RawMessage, withDaemons bool) (*v1.Node, []*v1.Pod, error) {
	object, err := decode(raw)
	if err != nil {
		return nil, nil, err
	}
	node, ok := object.(*v1.Node)
	if !ok {
		return nil, nil, fmt.Errorf("%T is no node", object)
	}
	var started []*v1.Pod
	for _, set := range c.daemonSets {
		if run, _ := daemon.NodeShouldRunDaemonPod(klog.FromContext(c.ctx), node, set); !run || !withDaemons {
			continue
		}
		pod := daemon.NewPod(set, node.Name).DeepCopy()
		pod.Name = set.Name + "-" + node.Name
		pod.UID = types.UID(set.Namespace + "/" + pod.Name)
		legacyscheme.Scheme.Default(pod)
		admitted, err := admit(pod)
		if err != nil {
			return nil, nil, err
		}
		started = append(started, admitted)
	}
	return node, started, nil
}

func (c *cluster) remove(name string) {
	nodes, bound := []*v1.Node{}, []*v1.Pod{}
	for _, node := range c.nodes {
		if node.Name != name {
			nodes = append(nodes, node)
		}
	}
	for _, pod := range c.bound {
		if pod.Spec.NodeName != name {
			bound = append(bound, pod)
			continue
		}
		waiting := pod.DeepCopy()
		waiting.Spec.NodeName = ""
		c.pending[pod.Namespace+"/"+pod.Name] = waiting
	}
	c.nodes, c.bound = nodes, bound
	c.refresh()
}

func (c *cluster) place(pod *v1.Pod, node string) (Refusals, error) {
	refusals, state, err := c.filter(pod, node)
	if err != nil {
		return nil, err
	}
	placed := pod.DeepCopy()
	placed.Spec.NodeName = node
	if len(refusals) == 0 {
		if err := c.reserve(state, placed, node); err != nil {
			return nil, err
		}
	}
	delete(c.pending, pod.Namespace+"/"+pod.Name)
	c.bound = append(append([]*v1.Pod{}, c.bound...), placed)
	c.refresh()
	return refusals, nil
}
