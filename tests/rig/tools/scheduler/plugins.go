package main

import (
	"context"
	"fmt"
	"reflect"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodevolumelimits"
	"k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
)

// leftOut are plugins of the default profile that judge nothing here: pods with resource claims are only reported, and
// groups of pods are off by default.
var leftOut = map[string]bool{
	names.DynamicResources: true,
	names.GangScheduling:   true,
}

var profile *config.KubeSchedulerProfile

func init() {
	metrics.Register()
	defaults, err := latest.Default()
	if err != nil {
		panic(err)
	}
	profile = &defaults.Profiles[0]
}

// newPlugins makes every plugin of the default profile that filters, with its default arguments.
func newPlugins(
	ctx context.Context, client kubernetes.Interface, factory informers.SharedInformerFactory, lister fwk.SharedLister,
) ([]fwk.Plugin, error) {
	handle, err := runtime.NewFramework(ctx, nil, nil,
		runtime.WithClientSet(client),
		runtime.WithInformerFactory(factory),
		runtime.WithSnapshotSharedLister(lister),
		runtime.WithSharedCSIManager(nodevolumelimits.NewCSIManager(factory.Storage().V1().CSINodes().Lister())),
		runtime.WithParallelism(1),
	)
	if err != nil {
		return nil, err
	}
	arguments := map[string]config.PluginConfig{}
	for _, plugin := range profile.PluginConfig {
		arguments[plugin.Name] = plugin
	}
	registry := plugins.NewInTreeRegistry()
	var made []fwk.Plugin
	for _, enabled := range profile.Plugins.MultiPoint.Enabled {
		if leftOut[enabled.Name] {
			continue
		}
		plugin, err := registry[enabled.Name](ctx, arguments[enabled.Name].Args, handle)
		if err != nil {
			return nil, fmt.Errorf("plugin %s: %w", enabled.Name, err)
		}
		_, first := plugin.(fwk.PreFilterPlugin)
		_, second := plugin.(fwk.FilterPlugin)
		if first || second {
			made = append(made, plugin)
		}
	}
	return made, nil
}

func synced(factory informers.SharedInformerFactory) bool {
	done := make(chan struct{})
	close(done)
	// With a channel that is closed it looks once.
	for _, ok := range factory.WaitForCacheSync(done) {
		if !ok {
			return false
		}
	}
	return true
}

// filter asks every plugin by itself, so that all that refuse are known and not only the first.
func (c *cluster) filter(pod *v1.Pod, nodeName string) (Refusals, fwk.CycleState, error) {
	state := framework.NewCycleState()
	node, err := c.lister.NodeInfos().Get(nodeName)
	if err != nil {
		return nil, nil, err
	}
	all, err := c.lister.NodeInfos().List()
	if err != nil {
		return nil, nil, err
	}
	var refusals Refusals
	refuse := func(plugin fwk.Plugin, status *fwk.Status) {
		refusals = append(refusals, Refusal{Plugin: plugin.Name(), Reasons: append([]string{}, status.Reasons()...)})
	}
	for _, plugin := range c.plugins {
		if first, ok := plugin.(fwk.PreFilterPlugin); ok {
			result, status := first.PreFilter(c.ctx, state, pod, all)
			if status.IsSkip() {
				continue
			}
			if !status.IsSuccess() {
				refuse(plugin, status)
				continue
			}
			if result != nil && !result.AllNodes() && !result.NodeNames.Has(nodeName) {
				refuse(plugin, fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "not among the nodes that PreFilter leaves"))
				continue
			}
		}
		if second, ok := plugin.(fwk.FilterPlugin); ok {
			if status := second.Filter(c.ctx, state, pod, node); !status.IsSuccess() {
				refuse(plugin, status)
			}
		}
	}
	return refusals, state, nil
}

// reserve lets plugins note what a placement takes beside room: volumes that will be bound.
func (c *cluster) reserve(state fwk.CycleState, pod *v1.Pod, node string) error {
	for _, plugin := range c.plugins {
		if taker, ok := plugin.(fwk.ReservePlugin); ok {
			if status := taker.Reserve(c.ctx, state, pod, node); !status.IsSuccess() {
				return fmt.Errorf("%s: %s", reflect.TypeOf(plugin), status.Message())
			}
		}
	}
	return nil
}
